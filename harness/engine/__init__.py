"""The steering engine: models, activations, interventions, hooks."""
