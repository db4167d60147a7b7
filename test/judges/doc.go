// Package judges holds tests whose verdict comes from programs that are not ours: upstream's nydus-image, the kernel's EROFS,
// erofs-utils, go-erofs, skopeo and docker-registry, and upstream's own files as input. Package judge says what happens where
// one is missing. With CONVHOST_TESTDATA, a folder of larger images and vectors is judged too.
package judges
