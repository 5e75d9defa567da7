cdef extern from *:
    """
    #ifndef UPCALL_SOURCE_HASH
    #error "UPCALL_SOURCE_HASH is not defined: build with setup.py (pip install .)"
    #endif
    """
    const char *UPCALL_SOURCE_HASH

cpdef str source_hash()
