# The extension module penstock._core; its type stub is among the package's sources. Built by
# scikit-build-core for a wheel, or by hand with PENSTOCK_BUILD_PYTHON=ON if nanobind and NumPy are
# installed.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module NumPy)
if(NOT nanobind_DIR)
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
        OUTPUT_VARIABLE nanobind_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(nanobind CONFIG REQUIRED)

file(GLOB penstock_binding_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/python/bindings/*.cpp")
if(penstock_binding_sources)
    # NOMINSIZE: nanobind would compile the module for size, and these calls are the hot path.
    # NB_SUPPRESS_WARNINGS: its headers do not compile cleanly under this project's warnings.
    nanobind_add_module(_core NB_DOMAIN penstock NOMINSIZE NB_SUPPRESS_WARNINGS
        ${penstock_binding_sources})
    target_include_directories(_core PRIVATE
        "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/python")
    target_link_libraries(_core PRIVATE penstock::penstock Python::NumPy)
    penstock_warnings(_core)
    penstock_precompile_optimized(_core
        <nanobind/nanobind.h> <nanobind/ndarray.h> <nanobind/stl/optional.h> <nanobind/stl/string.h>
        <nanobind/stl/vector.h> ${PENSTOCK_COMMON_HEADERS})

    install(TARGETS _core LIBRARY DESTINATION penstock COMPONENT python)
endif()
