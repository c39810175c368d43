package grafana

// membership looks at who belongs to the cluster, and at the license.
func membership() Dashboard {
	var g grid
	base := Threshold{Color: "text"}
	g.add(stat("Ready nodes", "Nodes that load balancers are told of.", "none", "binnacle_nodes_ready"), 6, 4)
	g.add(stat("Down", "Nodes that were unreachable for longer than down_after.", "none", `binnacle_nodes{state="down"}`, base, above(1, "red")), 6, 4)
	g.add(stat("Seats used", "Seats that the license counts as taken.", "none", "binnacle_license_seats_used"), 6, 4)
	g.add(stat("Seats", "Seats of the license; 0 is unlimited.", "none", "binnacle_license_seats"), 6, 4)
	g.add(series("Nodes by state", "Unreachable becomes down after down_after; left is a clean stop.", "none", true,
		query("binnacle_nodes", "{{state}}")), 12, 9)
	g.add(series("Events", "Events per second by kind; each also stands on the page.", "cps", false,
		query("sum by (kind) (rate(binnacle_events_total"+window+"))", "{{kind}}")), 12, 9)
	g.add(series("License state", "1 is the state that holds.", "none", false,
		query("binnacle_license_state", "{{state}}")), 12, 8)
	g.add(series("Leases given", "Leases per second that nodes were handed.", "cps", false,
		query("rate(binnacle_leases_issued_total"+window+")", "leases")), 12, 8)
	g.add(series("License ends in", "Time to the end of the license; a license without an end shows nothing.", "s", false,
		query("binnacle_license_expires_seconds", "license")), 12, 8)
	g.add(series("Seats held", "Seats that are taken, those of nodes that left a moment ago included.", "none", false,
		query("binnacle_seats_held", "held"),
		query("binnacle_license_seats_used", "used")), 12, 8)
	return dashboard("membership", "License and membership", "Who belongs to the cluster, and under which license.", g)
}
