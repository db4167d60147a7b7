// Package host converts container images with format plugins. It is what the convhost command is made of, and what a
// registry, a builder or a CI service embeds.
//
//	h, err := host.New(host.WithPluginDir("/usr/lib/convhost/plugins"))
//	if err != nil { … }
//	defer h.Close()
//	results, err := h.Convert(ctx, host.ConvertRequest{
//		Source:  "docker://registry.example/app:1",
//		Targets: []host.Target{{Format: "nydus", Dest: "docker://registry.example/app:1-nydus"}},
//	})
//
// A [Host] holds what conversions share: a budget of cores and memory, compiled plugins, and nothing global, so a
// process can have several. All methods take a context, can be called from several goroutines, and return errors that
// wrap exactly one class of package abi; [Error] tells at which descriptor and with which plugin a conversion failed.
//
// [Host.Convert] resolves a source once, walks its descriptor graph with every digest checked, hands each layer to the
// plugins of all targets, rewrites the documents, and publishes each target's name last, in one step. Interrupted at
// any point it leaves nothing visible. [Host.Verify] compares two images file by file; [Host.Unpack] turns a converted
// image back into tars; [Host.Attach] presents one as a device or a mount, until [Host.Detach]; [Host.Check] lets a
// plugin examine its own format; [Host.Graph] and [Host.Inspect] look.
//
// References are written as skopeo writes them; see package transport. Plugins run in the sandbox unless a [Target]
// says otherwise; see [Runtime].
//
// The host knows graphs, stores and bytes, and no format: everything about nydus, overlaybd or CIM is in plugins, behind
// the contract of package abi.
package host
