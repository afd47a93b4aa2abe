"""The Feast repo: declarations only, what data engineers edit."""
