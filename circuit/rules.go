package circuit

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bandwidths are the rates of provider circuits, in Mbit/s.
var Bandwidths = []int{50, 100, 200, 500, 1000, 2000, 5000, 10000}

// CheckPeerASN checks the customer's AS number: any 16- or 32-bit one that
// Azure has not reserved for its own routers.
func CheckPeerASN(asn int64) *Violation {
	const want = "1 to 4294967295, except 12076 and 65515 to 65520"
	switch {
	case asn < 1 || asn > 0xffff_ffff:
		return &Violation{"not an AS number", want}
	case asn == ASNMSEE:
		return &Violation{"the ASN of the MSEE itself", want}
	case asn >= 65515 && asn <= 65520:
		return &Violation{"reserved by Azure", want}
	}
	return nil
}

// MaxSharedKey is the length of the longest TCP-MD5 key Azure takes.
const MaxSharedKey = 25

// CheckSharedKey checks a TCP-MD5 key. The violation tells nothing of the key
// but its length or the kind of character that is wrong.
func CheckSharedKey(key string) *Violation {
	const want = "1 to 25 letters A-Z, a-z and digits"
	if key == "" {
		return &Violation{"empty", want}
	}
	for _, r := range key {
		if kind := notAlphanumeric(r); kind != "" {
			return &Violation{"contains " + kind, want}
		}
	}
	if n := utf8.RuneCountInString(key); n > MaxSharedKey {
		return &Violation{fmt.Sprintf("too long: %d characters", n), want}
	}
	return nil
}

// notAlphanumeric names the kind of character r is, "" for an ASCII letter or
// digit.
func notAlphanumeric(r rune) string {
	switch {
	case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z':
		return ""
	case r == ' ' || r == '\t':
		return "white space"
	case r < ' ' || r == 0x7f:
		return "a control character"
	case r > 0x7f:
		return "a character that is not ASCII"
	}
	return "a special character"
}

// CheckVLANID checks a VLAN identifier, S-tag or C-tag (IEEE 802.1Q-2018 §9.6:
// 0 means no VLAN and 4095 is reserved).
func CheckVLANID(id int64) *Violation {
	if id < 1 || id > 4094 {
		return &Violation{"not a VLAN identifier", "1 to 4094"}
	}
	return nil
}

// CheckServiceKey checks a circuit's service key, a GUID in its plain form.
func CheckServiceKey(key string) *Violation {
	v := &Violation{"not a GUID", "8-4-4-4-12 hexadecimal digits, e.g. 11111111-2222-3333-4444-555555555555"}
	if len(key) != 36 {
		return v
	}
	for i, c := range []byte(key) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return v
			}
		default:
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
				return v
			}
		}
	}
	return nil
}

// CheckSKU checks the combination of tier and family.
func CheckSKU(s SKU) *Violation {
	if s.Tier == TierLocal && s.Family == FamilyMeteredData {
		return &Violation{"a Local circuit is not metered", string(FamilyUnlimitedData)}
	}
	return nil
}

// DefaultFamily is the billing family of a circuit that states none.
func DefaultFamily(t SKUTier) SKUFamily {
	if t == TierLocal {
		return FamilyUnlimitedData
	}
	return FamilyMeteredData
}

// CheckBandwidth checks a circuit's rate in Mbit/s.
func CheckBandwidth(mbps int64) *Violation {
	if mbps > int64(slices.Max(Bandwidths)) || !slices.Contains(Bandwidths, int(mbps)) {
		return &Violation{"not a circuit bandwidth", "50, 100, 200, 500, 1000, 2000, 5000 or 10000 Mbit/s"}
	}
	return nil
}

// CheckRoutingWeight checks a connection's routingWeight.
func CheckRoutingWeight(w int64) *Violation {
	if w < 0 || w > 32000 {
		return &Violation{"not a routing weight", "0 to 32000"}
	}
	return nil
}

// CheckPeeringType refuses what cannot be created any more.
func CheckPeeringType(t PeeringType) *Violation {
	if t == AzurePublicPeering {
		return &Violation{"retired on 2024-03-31", "MicrosoftPeering (or AzurePrivatePeering)"}
	}
	return nil
}
