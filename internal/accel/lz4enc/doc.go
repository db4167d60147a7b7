// Package lz4enc compresses buffers that are all there, such as the chunks of an image, each to one LZ4 block. Blocks are about
// as large as those of the reference library at its default settings, and are made 1.8 times as fast as with
// github.com/pierrec/lz4.
//
//	var e lz4enc.Encoder
//	block := e.Append(nil, chunk) // any number of times
//
// The matcher is greedy and has one table from a hash to the last position, small enough for the first level of the cache.
// Positions start at 0 in each buffer and the table is cleared, so nothing is left of earlier buffers.
//
// The bytes are a function of the buffer; a change of them is a change of every image that is made with them: see [Version].
//
// # The format
//
//	sequence: token (4 bits number of literals, 4 bits length of match - 4), more of the number, literals,
//	          u16 distance, more of the length
//	end:      token (number of literals, 0), more of the number, literals: 5 bytes at least if there is a match before
//
// A number of 15 in the token goes on in bytes that are added to it, up to the first that is not 255. The last match starts
// at least 12 bytes before the end. An empty buffer is a token of 0.
package lz4enc
