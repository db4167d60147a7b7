// This file lets package wasmguest declare a function without a body (main.main, see guest.go).
