# One libFuzzer program for each fuzz/*_fuzz.cpp, in the fuzz/ folder of the build tree. The sanitizers
# that go with it are set for the whole tree in PenstockSanitizers.

file(GLOB penstock_fuzz_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/fuzz/*_fuzz.cpp")

foreach(source IN LISTS penstock_fuzz_sources)
    get_filename_component(name "${source}" NAME_WE)
    penstock_internal_executable(${name} "${source}")
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/fuzz")
endforeach()
