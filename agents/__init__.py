"""What acts and how it learns: policies, artifacts, networks, the learners' mathematics, classical controllers."""
