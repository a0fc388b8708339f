// Asks Argo CD's own engine whether objects are as wanted, the way its controller does for its default settings.
//
// Standard input: a JSON list of {"wanted": object, "live": object}. Standard output: a JSON list of the names of those that an
// Application would show as OutOfSync, each with what it compared. Ends with 1 when it cannot compare.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type pair struct {
	Wanted map[string]any `json:"wanted"`
	Live   map[string]any `json:"live"`
}

type difference struct {
	Object string          `json:"object"`
	Live   json.RawMessage `json:"live"`
	Wanted json.RawMessage `json:"wanted"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var pairs []pair
	if err := json.NewDecoder(os.Stdin).Decode(&pairs); err != nil {
		return err
	}
	found := []difference{}
	for _, p := range pairs {
		wanted := &unstructured.Unstructured{Object: p.Wanted}
		result, err := diff.Diff(wanted, &unstructured.Unstructured{Object: p.Live})
		if err != nil {
			return fmt.Errorf("%s/%s: %w", wanted.GetKind(), wanted.GetName(), err)
		}
		if result.Modified {
			name := wanted.GetKind() + "/" + wanted.GetName()
			found = append(found, difference{name, result.NormalizedLive, result.PredictedLive})
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
