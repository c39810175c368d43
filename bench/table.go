package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table prints Markdown with aligned columns.
type table struct{ rows [][]string }

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print() {
	widths := make([]int, len(t.rows[0]))
	for _, r := range t.rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for i, r := range t.rows {
		fmt.Print("|")
		for j, c := range r {
			fmt.Print(" ", c, strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)), " |")
		}
		fmt.Println()
		if i == 0 {
			for j := range r {
				fmt.Print("|", strings.Repeat("-", widths[j]+2))
			}
			fmt.Println("|")
		}
	}
}
