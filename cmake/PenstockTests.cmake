# The C++ tests. Unit tests become one GoogleTest binary; under tests/crash, tests/stress and
# tests/namespace each source becomes a program of its own, because those tests start and kill processes.

find_package(GTest REQUIRED)
include(GoogleTest)

# Tests are compiled with little optimization or none: it takes two to three times as long for their
# templates, most with clang and a sanitizer. The library under test has its own flags.
function(penstock_test_options target)
    target_link_libraries(${target} PRIVATE GTest::gtest_main)
    target_compile_options(${target} PRIVATE $<IF:$<CXX_COMPILER_ID:GNU>,-Og,-O0> -g1)
endfunction()

# Support code of all test programs of a tree, compiled once, and their precompiled header.
file(GLOB penstock_test_support_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/support/*.cpp")
list(FILTER penstock_test_support_sources EXCLUDE REGEX "/stand_in_cuda\\.cpp$")
add_library(penstock_test_support OBJECT ${penstock_test_support_sources})
penstock_internal(penstock_test_support)
penstock_test_options(penstock_test_support)
set_target_properties(penstock_test_support PROPERTIES POSITION_INDEPENDENT_CODE OFF)
penstock_precompile(penstock_test_support <gtest/gtest.h> ${PENSTOCK_COMMON_HEADERS})

# penstock_test_executable(TARGET SOURCE...)
function(penstock_test_executable target)
    penstock_internal_executable(${target} ${ARGN})
    penstock_test_options(${target})
    target_link_libraries(${target} PRIVATE penstock_test_support)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    penstock_reuse_precompiled(${target} penstock_test_support)
endfunction()

file(GLOB_RECURSE penstock_unit_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/unit/*_test.cpp")
# Without crash points no process can be stopped half-way: sources that arm one are left out, unless
# their #ifdefs say what they can do without.
if(NOT PENSTOCK_CRASH_POINTS)
    foreach(source IN LISTS penstock_unit_sources)
        file(READ "${source}" text)
        if(text MATCHES "arm_crash_point" AND NOT text MATCHES "#ifdef PENSTOCK_CRASH_POINTS")
            list(REMOVE_ITEM penstock_unit_sources "${source}")
        endif()
    endforeach()
endif()
if(penstock_unit_sources)
    penstock_test_executable(penstock_unit_tests ${penstock_unit_sources})
    # Named as the driver's library, in a folder that is not searched by default.
    add_library(penstock_stand_in_cuda SHARED "${PROJECT_SOURCE_DIR}/tests/support/stand_in_cuda.cpp")
    set_target_properties(penstock_stand_in_cuda PROPERTIES
        OUTPUT_NAME cuda SOVERSION 1 LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/stand_in")
    add_dependencies(penstock_unit_tests penstock_stand_in_cuda)
    set_source_files_properties("${PROJECT_SOURCE_DIR}/tests/unit/os/cuda_test.cpp" PROPERTIES
        SKIP_PRECOMPILE_HEADERS ON
        COMPILE_DEFINITIONS "PENSTOCK_STAND_IN_CUDA=\"$<TARGET_SONAME_FILE:penstock_stand_in_cuda>\"")
    # The time limit is for hanging tests: under a sanitizer, beside other programs, a test of one
    # second takes two minutes.
    gtest_discover_tests(penstock_unit_tests
        DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit TIMEOUT 600)
endif()

# The programs of the other families stop and die at crash points.
if(NOT PENSTOCK_CRASH_POINTS)
    return()
endif()

# A crash walk mostly waits: CTest runs it in parts, several at a time.
set(PENSTOCK_WALK_SHARDS 2)

function(penstock_add_test name family)
    if(family STREQUAL "crash")
        foreach(shard RANGE 1 ${PENSTOCK_WALK_SHARDS})
            set(part "${name}.${shard}of${PENSTOCK_WALK_SHARDS}")
            add_test(NAME ${part} COMMAND ${name} --shard ${shard}/${PENSTOCK_WALK_SHARDS})
            set_tests_properties(${part} PROPERTIES LABELS ${family} TIMEOUT 900)
        endforeach()
    else()
        add_test(NAME ${name} COMMAND ${name})
        set_tests_properties(${name} PROPERTIES LABELS ${family} TIMEOUT 900 RUN_SERIAL ON)
    endif()
endfunction()

# Every program here is also a helper for Python tests, which find it in the tests/ folder of the
# build tree. CTest runs the programs named *_test.
foreach(family IN ITEMS crash stress namespace)
    file(GLOB family_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/${family}/*.cpp")
    foreach(source IN LISTS family_sources)
        get_filename_component(name "${source}" NAME_WE)
        penstock_test_executable(${name} "${source}")
        set_target_properties(${name} PROPERTIES
            RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
        if(name MATCHES "_test$")
            penstock_add_test(${name} ${family})
        endif()
    endforeach()
endforeach()
