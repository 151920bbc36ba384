// The page of one probe.

byId("settings").textContent = JSON.stringify(data.settings, null, 2);
drawFraction();
drawCounts();
drawGroups();
startBrowser();
