# Sanitizers apply to every target of a build tree, because a half-instrumented process reports nonsense.
# The fuzzers bring their own set.

if(PENSTOCK_BUILD_FUZZERS)
    if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "PENSTOCK_BUILD_FUZZERS needs clang: set CMAKE_CXX_COMPILER=clang++")
    endif()
    if(NOT PENSTOCK_SANITIZE)
        set(PENSTOCK_SANITIZE address undefined)
    endif()
    # "no-link" instruments everything; the fuzzers alone get libFuzzer's main function.
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()

if(PENSTOCK_SANITIZE)
    string(REPLACE ";" "," penstock_sanitizers "${PENSTOCK_SANITIZE}")
    add_compile_options(
        -fsanitize=${penstock_sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
    add_link_options(-fsanitize=${penstock_sanitizers})
    if(penstock_sanitizers MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # GCC warns of every fence under TSan, also of those in the standard library.
        add_compile_options(-Wno-tsan)
    endif()
endif()
