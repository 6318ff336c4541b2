"""What runs inside the pod of a Run: the runner (papermill) and the courier (uploads)."""
