"""Conformance of any product that receives PROXY headers: what it takes and refuses, seen from behind it."""
