package enginetest_test

import (
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

func TestCluster(t *testing.T) {
	enginetest.TestBackplane(t, func(_ *testing.T, n int) []engine.Backplane { return enginetest.NewCluster(n) })
}
