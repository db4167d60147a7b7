// Package zran inflates: raw deflate streams (RFC 1951) and gzip files of one or many members (RFC 1952), faster than the
// libraries, and with the positions where decompression can be taken up again later. Layers are read with it, and formats
// that read ordinary .tar.gz layers at random (TurboOCI's gzip index, nydus' ZRAN contexts) get their index from it.
//
//	z := zran.NewReader(f, zran.Options{
//		Trailing: zran.Zeros,
//		OnBlock: func(b *zran.Block) error {
//			if b.Out-last >= span { index = append(index, b.Checkpoint()); last = b.Out }
//			return nil
//		},
//	})
//	_, err := z.WriteTo(w) // nil: every member was complete and its CRC-32 and length were right
//
//	z = zran.NewReaderAt(io.NewSectionReader(f, c.In, 1<<62), c, zran.Options{}) // continues with output byte c.Out
//
// # Rules
//
// What the standard library's compress/flate and compress/gzip accept and refuse is accepted and refused here: Huffman codes
// must be complete, except that a code may have a single symbol of one bit, or none if it is not used; distances reach
// neither before the member nor beyond 32 KiB; 286 and 30 symbols at most; names and comments of a gzip header have up to
// 511 bytes; unknown header flags mean nothing; a header's CRC-16 is checked. Other than there an empty gzip file is an error,
// and the symbols that a cut stream still holds are handed out to the last one.
//
// A Reader reads ahead of what it needs, in pieces of 64 KiB; [Reader.Rest] gives back what follows. It asks its source
// for more only when it can neither decode on nor has output to hand over.
//
// # Offsets
//
// Input offsets count the bytes of the source from its beginning, output offsets those of the decompressed stream, over all
// members. A Reader made by [NewReaderAt] goes on with the offsets of its checkpoint. Errors name the offset behind the last
// byte that was needed to find the fault, at member headers the offset of the header.
//
// # Errors
//
// ErrTruncated: the input ends early. ErrCorrupt: it breaks the rules, or checksum or length are wrong. ErrInvalid: a
// checkpoint that cannot be one. Both former are *abi.FormatError. ErrIO: the source failed with an error that has no
// class of its own. Errors of the callbacks come out as they are. All are final, and follow the output that is right.
//
// # Memory
//
// About 350 KiB a Reader, whatever the input says. A Reader is used from one goroutine.
package zran
