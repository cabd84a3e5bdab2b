package signing

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// CacheFor is how long readers of the keys may keep them.
const CacheFor = 5 * time.Minute

// KeySet is a JWKS.
type KeySet struct {
	Keys []JWK `json:"keys"`
}

// ServePage answers a request with a page that readers of tokens may cache.
func ServePage(w http.ResponseWriter, r *http.Request, page any) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page is read with GET", http.StatusMethodNotAllowed)
		return
	}
	text, err := json.Marshal(page)
	if err != nil {
		http.Error(w, "this page cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(CacheFor.Seconds())))
	w.Write(text)
}
