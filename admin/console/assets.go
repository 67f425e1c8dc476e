package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

//go:embed static/*.css static/*.js static/*.svg
var static embed.FS

// assetsPath is where static files are served: under the hash of their content, so that a browser may keep them for
// ever.
const assetsPath = "/static/"

// The static files that pages use.
const (
	styleFile  = "console.css"
	scriptFile = "htmx-4.0.1.min.js"
	iconFile   = "icon.svg"
)

// assets are the static files.
type assets struct {
	content map[string][]byte
	hashes  map[string]string // first half of SHA-256, in hex
}

func loadAssets() *assets {
	a := &assets{map[string][]byte{}, map[string]string{}}
	names, _ := fs.Glob(static, "static/*")
	for _, name := range names {
		data, err := static.ReadFile(name)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		a.content[path.Base(name)], a.hashes[path.Base(name)] = data, hex.EncodeToString(sum[:16])
	}
	return a
}

// url is the path of a file.
func (a *assets) url(name string) string { return assetsPath + a.hashes[name] + "/" + name }

// ServeHTTP implements http.Handler. A path with another hash is of another version of Postern.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, ok := a.content[name]
	if !ok || r.PathValue("hash") != a.hashes[name] {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(data) // whoever asked has left
}
