package macsec

// Outcome is what became of a frame in the SecY.
type Outcome uint8

const (
	OK        Outcome = iota // sealed, or opened and valid
	Untouched                // let through as it was: ProtectFrames is off, or there was no tag and ValidateFrames is not Strict
	Tolerated                // the tag is off, the frame not valid, and ValidateFrames not Strict

	// What Seal drops.
	NoKey     // there is no SA to send with
	Exhausted // its packet numbers are used up
	BadLength // no Ethernet frame, longer than the port can send, or too long for its buffer

	// What Open drops.
	NoTag      // no SecTAG
	BadTag     // the SecTAG is wrong, or the length of what follows
	UnknownSCI // no receive channel has the SCI
	NotUsingSA // the channel's SA is not in use
	Late       // below the lowest acceptable packet number: replayed, or overtaken
	NotValid   // the ICV does not hold
	outcomes   = iota
)

// Passes reports whether the frame goes on its way.
func (o Outcome) Passes() bool { return o <= Tolerated }

var outcomeNames = [outcomes]string{
	OK: "ok", Untouched: "untouched", Tolerated: "tolerated",
	NoKey: "no-key", Exhausted: "exhausted", BadLength: "bad-length",
	NoTag: "no-tag", BadTag: "bad-tag", UnknownSCI: "unknown-sci",
	NotUsingSA: "not-using-sa", Late: "late", NotValid: "not-valid",
}

func (o Outcome) String() string { return outcomeNames[o] }
