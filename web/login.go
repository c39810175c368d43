package web

import (
	"bytes"
	"fmt"
	"html"
	"io/fs"
	"net/http"
)

// loginNotes says why a visitor sees the login page, by the query's "error".
// The page has no script, so that the words are put in here.
var loginNotes = map[string]string{
	"token": "That token was not accepted. Check that it was pasted whole and has not been revoked.",
	"code":  "This one-time link was used already or has ended. Ask for a new one, or log in with a token.",
	"limit": "Too many failed logins from this address. Wait a minute and try again.",
	"ended": "Your session has ended. Log in again to go on.",
}

// Marks in login.html that are replaced.
const (
	markNote = "<!-- note -->"
	markNext = "<!-- next -->"
)

// serveLogin writes the login page. The query's "next" comes back with the form:
// whoever takes the form must check that it is a path of this host.
func serveLogin(w http.ResponseWriter, r *http.Request, files fs.FS) {
	page, err := fs.ReadFile(files, "login.html")
	if err != nil {
		http.Error(w, "the login page cannot be read", http.StatusInternalServerError)
		return
	}
	note, next := "", ""
	if text := loginNotes[r.URL.Query().Get("error")]; text != "" {
		note = fmt.Sprintf(`<p class="note" role="alert">%s</p>`, html.EscapeString(text))
	}
	if path := r.URL.Query().Get("next"); path != "" {
		next = fmt.Sprintf(`<input type="hidden" name="next" value="%s" />`, html.EscapeString(path))
	}
	page = bytes.Replace(page, []byte(markNote), []byte(note), 1)
	page = bytes.Replace(page, []byte(markNext), []byte(next), 1)
	h := w.Header()
	h.Set("Content-Type", contentType("login.html"))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(page) // a visitor who has left is no error
}
