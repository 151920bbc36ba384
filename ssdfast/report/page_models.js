// The page of several trained models beside one baseline.

byId("settings").textContent = JSON.stringify(data.settings, null, 2);
byId("models").append(textTable(data.models));
if (data.trajectory) {
  const { charts, changes } = data.trajectory;
  legend(byId("trajectory-legend"), data.study.arms.map(({ name }) => name).filter((name) => name));
  byId("trajectory").append(...charts.map(lineChart));
  byId("trajectory-changes").append(textTable(changes));
}
drawGroups();
startBrowser();
