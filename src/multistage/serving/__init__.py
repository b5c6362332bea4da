"""The four stages as a service: Feast, FAISS, Merlin Systems operators of our own, and Triton."""
