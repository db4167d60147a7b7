// Package private tells whether files that the host trusts, machine code and what it remembers of conversions, could have
// been written by somebody else.
package private
