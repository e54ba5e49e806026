# The C++ tests. Unit tests become one GoogleTest binary; under tests/crash, tests/stress and
# tests/namespace each source becomes a program of its own, because those tests start and kill processes.

find_package(GTest REQUIRED)
include(GoogleTest)

file(GLOB_RECURSE penstock_unit_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/unit/*_test.cpp")
# Without crash points nobody can be stopped half-way: sources that arm one are left out whole, unless
# they say by #ifdef what they can do without.
if(NOT PENSTOCK_CRASH_POINTS)
    foreach(source IN LISTS penstock_unit_sources)
        file(READ "${source}" text)
        if(text MATCHES "arm_crash_point" AND NOT text MATCHES "#ifdef PENSTOCK_CRASH_POINTS")
            list(REMOVE_ITEM penstock_unit_sources "${source}")
        endif()
    endforeach()
endif()
if(penstock_unit_sources)
    penstock_internal_executable(penstock_unit_tests ${penstock_unit_sources})
    target_link_libraries(penstock_unit_tests PRIVATE GTest::gtest_main)
    # Under the name by which the driver is looked for, in a folder where nobody looks by himself.
    add_library(penstock_stand_in_cuda SHARED "${PROJECT_SOURCE_DIR}/tests/support/stand_in_cuda.cpp")
    set_target_properties(penstock_stand_in_cuda PROPERTIES
        OUTPUT_NAME cuda SOVERSION 1 LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/stand_in")
    add_dependencies(penstock_unit_tests penstock_stand_in_cuda)
    target_compile_definitions(penstock_unit_tests PRIVATE
        "PENSTOCK_STAND_IN_CUDA=\"$<TARGET_SONAME_FILE:penstock_stand_in_cuda>\"")
    gtest_discover_tests(penstock_unit_tests
        DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit TIMEOUT 120)
endif()

# The actors of the other families stop and die at crash points.
if(NOT PENSTOCK_CRASH_POINTS)
    return()
endif()

# Every program here is also a helper that Python tests may run: they find it in the tests/ folder of
# the build tree. CTest runs those whose name ends in _test.
foreach(family IN ITEMS crash stress namespace)
    file(GLOB family_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/${family}/*.cpp")
    foreach(source IN LISTS family_sources)
        get_filename_component(name "${source}" NAME_WE)
        penstock_internal_executable(${name} "${source}")
        target_link_libraries(${name} PRIVATE GTest::gtest_main)
        set_target_properties(${name} PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
        if(name MATCHES "_test$")
            add_test(NAME ${name} COMMAND ${name})
            set_tests_properties(${name} PROPERTIES LABELS ${family} TIMEOUT 900 RUN_SERIAL ON)
        endif()
    endforeach()
endforeach()
