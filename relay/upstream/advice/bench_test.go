package advice

import (
	"strings"
	"testing"

	"postern/relay/upstream/replies"
)

func BenchmarkFor(b *testing.B) {
	for name, text := range map[string]string{
		"known": "535 5.7.8 Username and Password not accepted. For more information, go to " +
			"https://support.google.com/mail/?p=BadCredentials",
		"none":      "554 5.7.1 nothing that anybody knows, nothing that anybody knows, nothing",
		"long":      "550 5.7.1 " + strings.Repeat("per your quota ip block sender ", 60),
		"addresses": "550 5.7.1 " + strings.Repeat("per a@b.example ", 120),
	} {
		reply, err := replies.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				question{"gmail", AnyStage, reply}.answer()
			}
		})
	}
}
