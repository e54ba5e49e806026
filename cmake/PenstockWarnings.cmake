# The warnings under which every target of this project is clean. They are private: targets that
# link Penstock do not inherit them.

function(penstock_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
    # GCC 12 and 13 falsely report overlapping copies in "text" + std::string (GCC bug 105651).
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
        target_compile_options(${target} PRIVATE -Wno-restrict)
    endif()
    if(PENSTOCK_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()
endfunction()
