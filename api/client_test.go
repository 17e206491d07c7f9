package api

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: an answer may take long as long as it goes on.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name           string
		begins, goesOn time.Duration
		want           string // error
	}{
		{"long", 4 * time.Second, 4 * time.Second, ""},
		{"none", 6 * time.Second, 0, "does not answer within 5s"},
		{"half", 0, 6 * time.Second, "does not go on with its answer within 5s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				go func() {
					defer there.Close()
					if _, err := http.ReadRequest(bufio.NewReader(there)); err != nil {
						return
					}
					time.Sleep(c.begins)
					fmt.Fprint(there, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
					for _, b := range "[{},{},{},{},{},{}] " { // an octet at a time
						if _, err := fmt.Fprintf(there, "%c", b); err != nil {
							return
						}
						time.Sleep(c.goesOn)
					}
				}()
				client := NewClient("msee1")
				client.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return here, nil },
					DisableKeepAlives: true}
				rows, err := client.FastPath()
				if c.want == "" && (err != nil || len(rows) != 6) {
					t.Errorf("%d rows, %v", len(rows), err)
				}
				if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v, want %q", err, c.want)
				}
				time.Sleep(time.Minute) // for the other end
			})
		})
	}
}
