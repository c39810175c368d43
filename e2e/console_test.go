package e2e

import (
	"fmt"
	"strings"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
)

// consoleErrors collects what the browser reports as errors: exceptions, failed
// requests and violations of the content security policy.
func consoleErrors(problems *[]string) func(any) {
	return func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			*problems = append(*problems, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError {
				*problems = append(*problems, fmt.Sprintf("%s %s", strings.TrimSpace(e.Entry.Text), e.Entry.URL))
			}
		}
	}
}
