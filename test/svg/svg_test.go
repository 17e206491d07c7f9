package svg

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

// TestPictureIsXML reads a picture whose text has characters that XML reserves.
func TestPictureIsXML(t *testing.T) {
	var c Canvas
	c.Text(1, 2, "title", "%d < %s", 1, `"a&b"`)
	c.Line(0, 0, 1, 1, "grid")
	c.Rect(0, 0, 1, 1, "good")
	c.Circle(0, 0, 1, "one hollow")
	var seen []string
	text := ""
	for d := xml.NewDecoder(strings.NewReader(c.Picture(10, 20))); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			seen = append(seen, token.Name.Local)
		case xml.CharData:
			text += string(token)
		}
	}
	if got := strings.Join(seen, " "); got != "svg style text line rect circle" {
		t.Errorf("elements are %s", got)
	}
	if !strings.Contains(text, `1 < "a&b"`) {
		t.Errorf("the text is missing in %q", text)
	}
}
