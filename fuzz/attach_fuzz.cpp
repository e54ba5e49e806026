// Damaged segments and other files: attaching, inspecting and creating over one gives an error or a
// segment, and does no harm. Starts from images of real segments.
#include <sys/stat.h>

#include <array>

#include "fuzz/finder.hpp"
#include "fuzz/playground.hpp"

namespace penstock::fuzzing {
namespace {

constexpr std::size_t kLargestFile = std::size_t{32} << 20U;

struct Family {
    std::vector<Image> (*images)(const std::string& path);
    void (*find)(const std::string& name);
};

constexpr std::array kFamilies = {
    Family{broadcast_images, find_broadcast},
    Family{store_images, find_store},
    Family{queue_images, find_queue},
    Family{trajectories_images, find_trajectories},
};

const std::vector<Image>& images_of(std::size_t family) {
    static std::array<std::vector<Image>, kFamilies.size()> images;
    if (images[family].empty()) {
        const std::string path = path_of("template" + std::to_string(family));
        images[family] = kFamilies[family].images(path);
        ::unlink(path.c_str());
    }
    return images[family];
}

Image damaged_image(FuzzedDataProvider& input, std::size_t family) {
    const std::vector<Image>& images = images_of(family);
    Image image = images[input.ConsumeIntegralInRange<std::size_t>(0, images.size() - 1)];
    damage(input, image);
    return image;
}

void find(FuzzedDataProvider& input) {
    constexpr std::size_t kLast = kFamilies.size() - 1;
    const auto family = input.ConsumeIntegralInRange<std::size_t>(0, kLast);
    const bool is_raw = input.ConsumeIntegralInRange<int>(0, 19) == 0;
    const bool is_full_size = input.ConsumeIntegralInRange<int>(0, 9) > 0;
    // As its real kind, or as another.
    const auto taken_for = input.ConsumeIntegralInRange<int>(0, 9) > 0
                               ? family
                               : input.ConsumeIntegralInRange<std::size_t>(0, kLast);
    const Image image = is_raw ? Image{input.ConsumeRemainingBytes<std::uint8_t>(), 0, {}}
                               : damaged_image(input, family);
    std::size_t size = std::max(image.front.size(), image.payload_offset);
    if (is_full_size && size >= sizeof(layout::SegmentHeader))
        size = std::min<std::uint64_t>(image.header().file_size, kLargestFile);
    const std::string path = path_of("segment");
    const std::string name = "file:" + path;
    write_file(path, image, size);
    may_refuse([&] { static_cast<void>(inspect_segment(name)); });
    kFamilies[taken_for].find(name);
    may_refuse([&] { static_cast<void>(remove_if_abandoned(name)); });
    ::unlink(path.c_str());
}

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::find(input);
    return 0;
}
