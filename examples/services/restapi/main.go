// Command restapi serves the API of package api. Set TRUSTED_PROXIES if it is
// behind a reverse proxy or a CDN: to loopback, or to the text of
// https://api.fastly.com/public-ip-list, for example.
package main

import (
	"crypto/subtle"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/relayguard/relayguard/examples/services/restapi/api"
)

func main() {
	key, password := os.Getenv("API_KEY"), os.Getenv("ADMIN_PASSWORD")
	if key == "" || password == "" {
		log.Fatal("API_KEY and ADMIN_PASSWORD are required")
	}
	h, err := api.New(api.Config{
		Trusted: os.Getenv("TRUSTED_PROXIES"),
		Tenants: map[string]string{key: "tenant-1"},
		Login: func(user, given string) bool {
			return user == "admin" && subtle.ConstantTimeCompare([]byte(given), []byte(password)) == 1
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "localhost:8080", Handler: h, ReadTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
