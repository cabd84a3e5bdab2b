package config

// later names the features whose settings are known and that this build does
// not have, by the key's pattern (see keyPath).
var later = map[string]string{
	"console":               "the console is",
	"quic":                  "QUIC and WebTransport are",
	"grpc":                  "gRPC is",
	"cluster":               "clustering is",
	"hubs.*.eventListeners": "sending events to Event Hubs is",
}

// keyPath is where a setting stands: text names it to people, and pattern, with
// "*" for every hub and "[]" for every index, finds it in tables.
type keyPath struct{ text, pattern string }

func (p keyPath) key(k string) keyPath {
	return keyPath{join(p.text, k), join(p.pattern, k)}
}

func (p keyPath) index(i string) keyPath {
	return keyPath{p.text + "[" + i + "]", p.pattern + "[]"}
}

func (p keyPath) hub(name string) keyPath {
	return keyPath{join(p.text, name), join(p.pattern, "*")}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
