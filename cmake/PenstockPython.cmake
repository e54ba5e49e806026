# The extension module penstock._core, with its type stub. Built by scikit-build-core for a wheel, and
# just the same by hand with PENSTOCK_BUILD_PYTHON=ON where nanobind and NumPy are installed.

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
    # NB_SUPPRESS_WARNINGS: its headers are not written to our warnings.
    nanobind_add_module(_core NB_DOMAIN penstock NOMINSIZE NB_SUPPRESS_WARNINGS
        ${penstock_binding_sources})
    target_include_directories(_core PRIVATE
        "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/python")
    target_link_libraries(_core PRIVATE penstock::penstock Python::NumPy)
    penstock_warnings(_core)

    # The stub is read off the module by importing it, which a sanitized module would not survive.
    if(NOT PENSTOCK_SANITIZE)
        nanobind_add_stub(penstock_core_stub
            MODULE _core
            OUTPUT "${PROJECT_BINARY_DIR}/python/_core.pyi"
            PYTHON_PATH $<TARGET_FILE_DIR:_core>
            DEPENDS _core)
        install(FILES "${PROJECT_BINARY_DIR}/python/_core.pyi" DESTINATION penstock COMPONENT python)
    endif()
    install(TARGETS _core LIBRARY DESTINATION penstock COMPONENT python)
endif()
