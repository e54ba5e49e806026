# The warnings that every target of ours is clean under. They are private: nobody who links Penstock
# inherits them.

function(penstock_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
    # GCC 12 and 13 see overlapping copies in "text" + std::string that are none (GCC bug 105651).
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
        target_compile_options(${target} PRIVATE -Wno-restrict)
    endif()
    if(PENSTOCK_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()
endfunction()
