"""The long-lived process: who asked for what, and where it stands."""
