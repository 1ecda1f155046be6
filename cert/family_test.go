package cert

import (
	"errors"
	"testing"
)

func TestFamilyAdmitsOneMemberInOneNetwork(t *testing.T) {
	t.Parallel()
	family := NewFamilyKey(seed(60))
	member, other := NewIdentityKey(seed(1)).Identity(), NewIdentityKey(seed(2)).Identity()
	m := family.Admit(testNetwork, member)
	if err := m.Verify(testNetwork, member); err != nil {
		t.Error(err)
	}
	if err := m.Verify(testNetwork, other); !errors.Is(err, ErrSignature) {
		t.Errorf("another relay: %v", err)
	}
	if err := m.Verify(NetworkID{1}, member); !errors.Is(err, ErrSignature) {
		t.Errorf("another network: %v", err)
	}
	stolen := Membership{NewFamilyKey(seed(61)).ID(), m.Signature}
	if err := stolen.Verify(testNetwork, member); !errors.Is(err, ErrSignature) {
		t.Errorf("another family: %v", err)
	}
	if err := (Membership{}).Verify(testNetwork, member); !errors.Is(err, ErrWeakKey) {
		t.Errorf("the zero membership: %v", err)
	}
	var id FamilyID
	text, _ := family.ID().MarshalText()
	if err := id.UnmarshalText(text); err != nil || id != family.ID() || family.Seed() != seed(60) {
		t.Errorf("the family id does not parse what it prints: %v", err)
	}
	if err := id.UnmarshalText([]byte("x")); !errors.Is(err, ErrMalformed) {
		t.Errorf("parsed nonsense: %v", err)
	}
}
