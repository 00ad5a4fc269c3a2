"""What holds a line back, what that costs, and what to change: computed from telemetry, on the twin and the chain."""
