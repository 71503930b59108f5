// Command warm links the packages that small programs use most, so that their builds are in the cache.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
)

func main() {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	text, err := json.Marshal(server.URL)
	fmt.Println(string(text), err)
}
