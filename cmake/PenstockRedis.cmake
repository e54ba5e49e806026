# hiredis, if it is enabled and found: PENSTOCK_HAS_REDIS says so, and penstock::hiredis is to be
# linked. Prefers the archive to the shared library, so that binaries run on machines without
# hiredis.

set(PENSTOCK_HAS_REDIS OFF)
if(PENSTOCK_WITH_REDIS STREQUAL "OFF")
    return()
endif()

find_path(PENSTOCK_HIREDIS_INCLUDE hiredis/hiredis.h)
find_library(PENSTOCK_HIREDIS_LIBRARY NAMES libhiredis.a hiredis)
mark_as_advanced(PENSTOCK_HIREDIS_INCLUDE PENSTOCK_HIREDIS_LIBRARY)
if(PENSTOCK_HIREDIS_INCLUDE AND PENSTOCK_HIREDIS_LIBRARY)
    set(PENSTOCK_HAS_REDIS ON)
    add_library(penstock::hiredis UNKNOWN IMPORTED)
    set_target_properties(penstock::hiredis PROPERTIES
        IMPORTED_LOCATION "${PENSTOCK_HIREDIS_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${PENSTOCK_HIREDIS_INCLUDE}")
elseif(PENSTOCK_WITH_REDIS STREQUAL "ON")
    message(FATAL_ERROR "PENSTOCK_WITH_REDIS needs hiredis (Debian: libhiredis-dev)")
endif()
