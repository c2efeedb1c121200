"""The bundle registry, and the roll-outs that say which models decide."""
