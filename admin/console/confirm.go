package console

import "net/url"

// confirmation is the step before an action on a selection: what it is, how many it is about, what it means. Its form
// sends what was asked for again, with "confirmed". Its template is "confirm".
type confirmation struct {
	Question string // with the count, such as "Delete 3 messages?"
	Meaning  string // what will happen, in a sentence or two
	Verb     string // on the button
	Danger   bool   // it cannot be undone
	Ask      string // for a reason, "" for none
	Action   string // path of the form
	Back     string // path of the way out
	Fields   []field
	Sample   []sample // the first of the selection
	More     int      // than those
}

// Title implements titled.
func (c *confirmation) Title() string { return c.Question }

// field is a hidden field of a form.
type field struct{ Name, Value string }

// sample is one of a selection, so that people see what they chose.
type sample struct{ ID, Text string }

// sampled is how many of a selection the confirmation shows.
const sampled = 5

// confirmed reports whether the confirmation was given.
func (v *visit) confirmed() bool { return v.PostForm.Get("confirmed") == "yes" }

// pager leads through a list.
type pager struct{ First, Next string }

// paged is the pager of a list whose next page begins behind a place, "" at its end. Other parameters of the page stay.
func (v *visit) paged(parameter, after string) pager {
	q := v.URL.Query()
	var p pager
	if q.Get(parameter) != "" {
		q.Del(parameter)
		p.First = with(v.URL.Path, q)
	}
	if after != "" {
		q.Set(parameter, after)
		p.Next = with(v.URL.Path, q)
	}
	return p
}

func with(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
