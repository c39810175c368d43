package main

import "context"

func query(context.Context, options) error { return nil }
