// Package zstdenc compresses buffers that are all there, such as the chunks of an image, each to one Zstandard frame. It knows
// one level, about as small as level 2 of the reference library and about 1.8 times as fast as the default level of
// github.com/klauspost/compress/zstd on chunks of 1 MiB and less, which is why it exists: that is where a conversion spends
// its time.
//
//	var e zstdenc.Encoder
//	frame := e.Append(nil, chunk) // any number of times
//
// # How it works
//
//	buffer ── blocks of 128 KiB ──► matcher ──► literals ──────► Huffman coding (huff0 of klauspost/compress)
//	                                   └──────► sequences ─────► codes ──► FSE coding
//
// The matcher is greedy and has one table from the hash of six bytes to the last position. The buffer itself is the window, so
// nothing is copied to a history, and positions start at 0 in each buffer, so nothing is left of earlier ones but memory.
// Tables are as large as the buffer needs: many chunks are small files, and clearing a large table takes longer than they do.
//
// # The format
//
// A frame has its content size, a single segment, no checksum and no dictionary. Each block is compressed, or raw if that
// is not longer. Everything is in RFC 8878, to which the comments refer.
//
// # Compatibility
//
// The bytes are a function of the buffer; a change of them is a change of every image that is made with them: see [Version].
package zstdenc
