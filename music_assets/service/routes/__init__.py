"""The endpoints, one module for each resource. Every error they raise is a ProblemError.

They only read requests: SQL belongs to `ready_made_queries`, the creation of responses to `responses`.
"""
