package badinput

var layers, plugins, natives []bad

func servePlugin(string) {}
