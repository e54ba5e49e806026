// Files that are no segments, or no longer quite: whoever attaches to one, looks at it or creates
// over it gets an error or a segment, and nothing else. Starts from images of real segments.
#include <sys/stat.h>

#include "fuzz/segment_image.hpp"

namespace penstock::fuzzing {
namespace {

constexpr std::size_t kLargestFile = std::size_t{32} << 20U;

// The file as its people left it: header, slots, control and ring; the arena reads as zeros.
Image image_of(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    Image image(std::size_t{64} << 10U);
    const ssize_t got = ::read(file, image.data(), image.size());
    ::close(file);
    if (got < 0) std::abort();
    image.resize(static_cast<std::size_t>(got));
    return image;
}

// Fresh, in use, wrapped round with large messages under way, and closed.
std::vector<Image> make_templates() {
    std::vector<Image> templates;
    const std::string path = path_of("template");
    const std::string name = "file:" + path;
    const BroadcastOptions shape{.readers = 2, .capacity = 4096, .large = 131072};
    std::vector<std::byte> message(3000);
    BroadcastWriter writer = BroadcastWriter::create(name, shape);
    templates.push_back(image_of(path));
    BroadcastReader first = BroadcastReader::attach(name, 0);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{10}, std::size_t{100}, message.size() / 3}) {
        writer.send(std::span(message).first(size)).or_throw();
    }
    templates.push_back(image_of(path));
    BroadcastReader second = BroadcastReader::attach(name, 1);
    for (int i = 0; i < 3; ++i) first.recv().or_throw();
    for (int i = 0; i < 3; ++i) second.recv().or_throw();
    writer.send(std::span(message).first(1000)).or_throw();
    writer.send(message).or_throw();
    Message kept = first.recv().or_throw();
    writer.loan(500).or_throw().commit().or_throw();
    templates.push_back(image_of(path));
    writer.close();
    templates.push_back(image_of(path));
    return templates;
}

void write_file(const std::string& path, const Image& image, std::size_t size) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ::write(file, image.data(), image.size()) < 0) std::abort();
    if (size > image.size() && ::ftruncate(file, static_cast<off_t>(size)) != 0) std::abort();
    ::close(file);
}

// A template with some damage; the header's is covered up by a right checksum, mostly.
Image damaged_template(FuzzedDataProvider& input) {
    static const std::vector<Image> templates = make_templates();
    Image image = templates[input.ConsumeIntegralInRange<std::size_t>(0, templates.size() - 1)];
    const bool has_right_checksum = input.ConsumeIntegralInRange<int>(0, 9) > 0;
    for (int i = input.ConsumeIntegralInRange<int>(0, 12); i > 0; --i) {
        constexpr std::size_t kHeader = sizeof(layout::SegmentHeader);
        if (input.ConsumeIntegralInRange<int>(0, 3) == 0) {
            damage(input, image.data(), 0, kHeader);
        } else {
            damage(input, image.data(), layout::kPage, image.size() - layout::kPage);
        }
    }
    if (has_right_checksum) mend_checksum(image);
    return image;
}

void attach_to(FuzzedDataProvider& input) {
    const bool is_raw = input.ConsumeIntegralInRange<int>(0, 9) == 0;
    const bool is_full_size = input.ConsumeIntegralInRange<int>(0, 9) > 0;
    Image image = is_raw ? input.ConsumeRemainingBytes<std::uint8_t>() : damaged_template(input);
    std::size_t size = image.size();
    if (is_full_size && image.size() >= sizeof(layout::SegmentHeader)) {
        std::uint64_t claimed = 0;
        std::memcpy(&claimed, image.data() + offsetof(layout::SegmentHeader, file_size), 8);
        size = std::min<std::uint64_t>(claimed, kLargestFile);
    }
    const std::string path = path_of("segment");
    write_file(path, image, size);
    exercise_file("file:" + path);
    ::unlink(path.c_str());
}

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::attach_to(input);
    return 0;
}
