// Segments of every kind from outside: listing, inspection, and removal of abandoned ones.
#include <algorithm>
#include <string>
#include <vector>

#include "os/host.hpp"
#include "penstock/segment.hpp"
#include "segment/life/segment.hpp"

namespace penstock {
namespace {

SegmentSummary unreadable(const std::string& name, const Error& error) {
    SegmentSummary summary;
    summary.name = name;
    summary.problem = error.what();
    summary.problem_code = error.code();
    if (error.code() != ErrorCode::PermissionDenied) return summary;
    const auto facts = os::facts_at(detail::locate(name).path);
    if (facts && facts->owner != os::current_user()) {
        summary.problem = "belongs to " + os::describe_user(facts->owner) + "; can't be looked at";
    }
    return summary;
}

}  // namespace

SegmentSummary inspect_segment(const std::string& name) {
    detail::Visit visit(name);
    return detail::summarize(visit, name);
}

std::vector<SegmentSummary> list_segments() {
    std::vector<SegmentSummary> all;
    auto names = os::list_names(detail::kSharedMemoryDirectory, detail::kFilePrefix);
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
        try {
            all.push_back(inspect_segment(name));
        } catch (const Error& error) {
            if (error.code() == ErrorCode::NotFound) continue;  // removed since it was listed
            all.push_back(unreadable(name, error));
        }
    }
    return all;
}

bool remove_if_abandoned(const std::string& name, OnData on_data) {
    detail::Visit visit(name, detail::Visit::Purpose::Remove);
    if (on_data == OnData::Remove) return visit.remove_if_abandoned();
    return visit.remove_if_abandoned([&] { return detail::kept_data(visit).is_nothing(); });
}

}  // namespace penstock
