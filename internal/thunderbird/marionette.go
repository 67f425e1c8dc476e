package thunderbird

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// marionette speaks the remote protocol of Mozilla's programs: JSON arrays, each after its length and a colon.
type marionette struct {
	conn net.Conn
	in   *bufio.Reader
	last int // number of the last command
}

// maxFrame bounds one answer.
const maxFrame = 16 << 20

// commandTime bounds one command. Each should return at once.
const commandTime = 2 * time.Minute

// dial connects and enters chrome context, where a script may do whatever Thunderbird itself may.
func dial(address string) (*marionette, error) {
	conn, err := net.DialTimeout("tcp", address, commandTime)
	if err != nil {
		return nil, err
	}
	m := &marionette{conn: conn, in: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(commandTime))
	if _, err := m.frame(); err != nil { // its greeting
		conn.Close()
		return nil, fmt.Errorf("marionette: %w", err)
	}
	// Nothing may answer dialogs by itself: the tests look at them.
	if err := errors.Join(
		m.command("WebDriver:NewSession", map[string]any{"unhandledPromptBehavior": "ignore"}, nil),
		m.command("Marionette:SetContext", map[string]any{"value": "chrome"}, nil),
	); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *marionette) frame() ([]byte, error) {
	head, err := m.in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil || n < 0 || n > maxFrame {
		return nil, fmt.Errorf("a frame of %q octets", head)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(m.in, b)
	return b, err
}

// command runs one command and decodes its result, unless that is nil.
func (m *marionette) command(name string, params, result any) error {
	m.last++
	b, err := json.Marshal([]any{0, m.last, name, params})
	if err != nil {
		return err
	}
	m.conn.SetDeadline(time.Now().Add(commandTime))
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(b), b); err != nil {
		return fmt.Errorf("marionette: %s: %w", name, err)
	}
	if b, err = m.frame(); err != nil {
		return fmt.Errorf("marionette: %s: %w", name, err)
	}
	var answer [4]json.RawMessage // 1, number, error, result
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("marionette: %s: %w", name, err)
	}
	if string(answer[2]) != "null" {
		return fmt.Errorf("marionette: %s: %s", name, answer[2])
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer[3], result)
}

// run runs a script and decodes what it returns.
func (m *marionette) run(script string, result any, args ...any) error {
	if args == nil {
		args = []any{}
	}
	var answer struct {
		Value json.RawMessage `json:"value"`
	}
	params := map[string]any{"script": script, "args": args, "sandbox": "system"}
	if err := m.command("WebDriver:ExecuteScript", params, &answer); err != nil {
		return err
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, result)
}
