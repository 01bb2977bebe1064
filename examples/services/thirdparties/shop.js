// The keys are those of the shop's accounts with the providers.
Stripe("pk_test_shop").elements().create("card").mount("#card");
google.accounts.id.initialize({ client_id: "shop.apps.googleusercontent.com", ux_mode: "popup", callback: signedIn });
google.accounts.id.renderButton(document.querySelector("#sign-in"), {});

function signedIn() {
  document.querySelector("#sign-in").textContent = "signed in";
}
