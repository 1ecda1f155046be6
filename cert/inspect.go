package cert

import (
	"fmt"
	"time"
)

// Inspect reads an envelope for a person to look at: where Open refuses the document, it says of each endorsement
// what is wrong with it, nil for one that is good at now. It fails when the form of the envelope is wrong. Nothing is
// to be believed because Inspect returned it: that is what Open is for.
//
// The Body of the result aliases data. The errors are as many as the endorsements, and in their order.
func Inspect(data []byte, network NetworkID, now time.Time, want DocumentType, maxBody int) (Document, []error, error) {
	doc, err := parseEnvelope(data, want, maxBody)
	if err != nil {
		return Document{}, nil, fmt.Errorf("inspecting a %s: %w", want, err)
	}
	message := documentMessage(want, network, doc.Body)
	errs := make([]error, len(doc.Endorsements))
	for i, e := range doc.Endorsements {
		_, errs[i] = Verifier{}.endorsement(e, network, message, now)
	}
	doc.Digest = DigestOf(want, network, doc.Body)
	return doc, errs, nil
}
